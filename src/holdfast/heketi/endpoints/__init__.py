"""The endpoints of the REST service; `routes` is the table of them."""
