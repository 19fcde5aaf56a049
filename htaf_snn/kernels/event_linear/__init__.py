"""A linear map of rows that are mostly zeros, such as frames of events."""
