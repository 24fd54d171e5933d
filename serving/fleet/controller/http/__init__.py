"""The controller's HTTP API: one table of endpoints, from which routes, roles and the OpenAPI document are made."""
