"""Reading public drum datasets in their own layout and saying what they hold in ours."""
