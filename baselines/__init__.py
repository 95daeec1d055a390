"""Systems that VARiant is compared with, one module each."""
