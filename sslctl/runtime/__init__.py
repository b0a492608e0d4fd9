"""The machine: device, memory, processes, stop requests, seeding."""
