//! Declaring layouts, with offsets and size checked while Rust compiles.

/// Declares a `#[repr(C)]` struct whose offsets and size are written down, and checked by the compiler: no padding can slip in.
/// Programs name its fields by [`field!`](crate::field); user space uses it as the plain struct that it is.
///
/// ```
/// use bpf_asm::layout;
/// use zerocopy::byteorder::big_endian::{U16, U32};
///
/// layout! {
///     /// A UDP header (RFC 768).
///     #[derive(Clone, Copy, Debug)]
///     pub struct Udp: 8 bytes {
///         /// Source port.
///         0 => source: U16,
///         /// Destination port.
///         2 => destination: U16,
///         /// Header and payload, in bytes.
///         4 => length: U16,
///         /// 0 if there is none.
///         6 => checksum: U16,
///     }
/// }
/// let header = Udp { source: 53.into(), destination: 4040.into(), length: 8.into(), checksum: 0.into() };
/// assert_eq!(header.destination.get(), 4040);
/// ```
///
/// An offset that is not where the field lies doesn't compile:
///
/// ```compile_fail
/// bpf_asm::layout! {
///     struct Padded: 16 bytes {
///         0 => small: u8,
///         1 => large: u64,
///     }
/// }
/// ```
#[macro_export]
macro_rules! layout {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident: $size:literal bytes {
        $($(#[$field_meta:meta])* $offset:literal => $field:ident: $type:ty),* $(,)?
    })*) => {$(
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name {
            $($(#[$field_meta])* $vis $field: $type),*
        }

        const _: () = {
            $(assert!(
                ::core::mem::offset_of!($name, $field) == $offset,
                concat!("`", stringify!($field), "` doesn't lie at ", stringify!($offset), ": fields before it end elsewhere, or it is aligned"),
            );)*
            assert!(
                ::core::mem::size_of::<$name>() == $size,
                concat!("`", stringify!($name), "` doesn't have ", stringify!($size), " bytes"),
            );
            assert!(
                0 $(+ ::core::mem::size_of::<$type>())* == $size,
                concat!("`", stringify!($name), "` has padding: name the bytes between its fields"),
            );
        };
    )*};
}
