"""What each page of the console asks and orders: a module for each page, with its documents and its endpoints."""
