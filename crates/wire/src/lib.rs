//! Electrode's messages as bytes: the fixed header and the postcard bodies
