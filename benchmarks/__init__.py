"""What a call costs, beside honest peers on the same table; see RESULTS.md."""
