//! OCI references, digests, content store, distribution client and server.
