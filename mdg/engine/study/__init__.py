"""Many runs from one file: which ones, running them one after the other or side by side, and what came of them."""
