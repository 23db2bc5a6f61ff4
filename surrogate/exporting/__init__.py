"""From a surrogate to one program in a file: traced, with its operators made portable, checked, described."""
