//! Network namespaces on one machine: hosts, links, faults
