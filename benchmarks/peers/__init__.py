"""Small servers of the same contract to compare with: what a person would write in a day, and the least there can be.

Most are modules with a function `servicer(url)`, which makes what answers the calls; `python -m benchmarks.peers NAME
URL` serves it. `fastapi` serves HTTP by itself, and `go/` is a program in Go, built by `benchmarks.go_peer`.
"""

THREADS = 8
"""Of the server, and connections to the database."""
