"""From a file and the environment to typed settings; explains what is wrong with them."""
