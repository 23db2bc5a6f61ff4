"""From the state to derivatives: adjoint or tangent, through history, first and second order."""
