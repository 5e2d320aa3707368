//! Host implementations of WASI over a virtual network and virtual file systems.
