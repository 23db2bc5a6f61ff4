"""The commands of `sobofem`, one a file: thin shells around functions that scripts call as well."""
