"""Operations in C++ that training on a CPU can use, compiled on the machine that runs them.

`library` says which file fits this machine, `build` makes it, and the other modules wrap what is in
it. Plain TensorFlow operations are the reference, and take over wherever there is no library.
"""
