"""One module a check: read the inputs, measure, judge, and return a Report."""
