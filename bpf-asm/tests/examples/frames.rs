//! Frames to give to programs.

/// What is in a frame.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) protocol: u8,
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
    pub(crate) ports: [u16; 2],
    /// Of TCP.
    pub(crate) flags: u8,
}

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

impl Frame {
    pub(crate) fn new(protocol: u8, source: [u8; 4]) -> Frame {
        Frame {
            protocol,
            source,
            destination: [10, 0, 0, 1],
            ports: [5000, 80],
            flags: 0,
        }
    }

    /// 64 bytes of Ethernet, IPv4 and what it carries.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 50, 0, 0, 0, 0, 64, self.protocol, 0, 0]);
        frame.extend(self.source);
        frame.extend(self.destination);
        frame.extend(self.ports.map(u16::to_be_bytes).concat());
        frame.extend([0, 30, 0, 0, 0, 0, 0, 0, 0x50, self.flags]);
        frame.resize(64, 0xab);
        frame
    }
}

/// Frames that lead a program everywhere.
pub(crate) fn mixed() -> Vec<Vec<u8>> {
    let mut frames = vec![vec![0; 14], vec![0xff; 64]];
    for protocol in [1, TCP, UDP] {
        for source in [[10, 1, 2, 3], [192, 0, 2, 9]] {
            for ports in [[5000, 80], [6000, 7]] {
                for flags in [0x02, 0x12] {
                    let frame = Frame::new(protocol, source);
                    let frame = Frame {
                        ports,
                        flags,
                        ..frame
                    };
                    frames.push(frame.bytes());
                }
            }
        }
    }
    // Cut in the middle of each header, and with options.
    let whole = Frame::new(UDP, [10, 1, 2, 3]).bytes();
    frames.extend([20, 33, 34, 40, 45].map(|len| whole[..len].to_vec()));
    let mut options = whole;
    options[14] = 0x46;
    frames.push(options);
    frames
}
