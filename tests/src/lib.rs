//! In-process clusters, behaviour tests, benchmarks and the load tool.
