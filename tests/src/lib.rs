//! End-to-end tests, the network lab, benchmarks and the demo.
