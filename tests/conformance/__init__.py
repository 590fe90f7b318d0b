"""The official conformance suite against the product, with the fixture server of each era behind it."""
