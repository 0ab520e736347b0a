"""Registration methods, one module each: all leave a SimpleITK transform that maps points from fixed to moving, in mm."""
