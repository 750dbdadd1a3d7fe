"""The long versions of the tests of hostile files and of kills: `make soak` runs them and writes docs/reliability.md."""
