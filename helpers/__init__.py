"""The parts of the course that would distract in a notebook: one module per concern.

Importing ``helpers`` imports no heavy library; each module imports what it needs.
"""

import logging

# On a CPU with AVX512 bitsandbytes advises, at every import, an optional package that fetches code from the hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
