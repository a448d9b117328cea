"""What HTTP's documentation says of each field of a course, beside its limits; the contract says the same."""

TITLE = "What people call the course: at least one visible character, none at either end that is white space."
CODE = "The catalogue code, such as `CS 101`. Need not be unique."
DESCRIPTION = "What the course is about. Of the control characters only line feed, carriage return and tab."
OWNER = "The resource name of the person responsible for the course, `users/{id}`. Only its form is checked."
LANGUAGE_CODE = "The language that the course is taught in: a BCP-47 tag in canonical form, such as `en` or `pt-BR`."
SUBJECTS = "The fields of study, in the order given, none twice."
LABELS = "Notes of the callers' own."
EXTERNAL_IDS = (
    "Ids that other systems have for the course, by system, such as `sis`. No two courses, deleted ones included, have"
    " the same value under the same key."
)
