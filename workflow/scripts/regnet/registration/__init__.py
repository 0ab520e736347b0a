"""Registration methods, one module each: each returns a SimpleITK transform that maps points from fixed to moving, in mm."""
