//! Joins a cluster: see below.
