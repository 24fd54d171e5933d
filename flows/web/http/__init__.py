"""How the console speaks HTTP: typed endpoints, who is asking, what a browser may do, the built pages."""
