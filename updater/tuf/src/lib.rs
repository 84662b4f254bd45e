//! A network-free TUF trusted set.
