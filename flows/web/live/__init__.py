"""Running cells as people see and order them: their views and pictures, the pen, orders and what came of them, the live stream."""
