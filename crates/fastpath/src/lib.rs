//! Electrode's eBPF programs, the maps they share with user space, and user space's half
