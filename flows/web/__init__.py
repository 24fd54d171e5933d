"""The console: a web application over the components of the command line; its pages are written in `console/` and built into `static/`."""
