"""From UFL to arrays: forms, kernels compiled once, and the columns of many forms assembled as one."""
