"""How nodes find and talk to each other; knows nothing of llama.cpp, SQL or screens."""
