"""The network between the site and its database, which can be broken at will."""
