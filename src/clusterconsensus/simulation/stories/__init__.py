"""Stories: scripts of commands against bare cores, with what these say. See ``cores.story``."""
