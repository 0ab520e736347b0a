"""Files, jobs, the machine, and which source files a module uses."""
