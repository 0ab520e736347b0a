"""What everything stands on: files, jobs, the machine, and which source files a module uses."""
