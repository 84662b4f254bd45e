//! The sizes that everything on the wire stays under: the strictest of the big brokers.

/// A topic's bytes at most (AWS IoT Core: 256, and at most 7 slashes).
pub const TOPIC_BYTES: usize = 255;
/// A topic's slashes at most.
pub const TOPIC_SLASHES: usize = 7;
/// A payload's bytes at most (AWS IoT Core: 128 KiB).
pub const PAYLOAD_BYTES: usize = 128 * 1024;
/// A command envelope's bytes at most: far more than any command needs, and cheap to hash when it is forged.
pub const COMMAND_BYTES: usize = 32 * 1024;
/// An operators list's bytes at most.
pub const OPERATORS_BYTES: usize = 256 * 1024;
/// Operators in one list at most.
pub const OPERATORS: usize = 1_000;
/// Signatures in one envelope at most.
pub const SIGNATURES: usize = 16;
/// How long a command may be valid, from issue to expiry, in seconds: 7 days.
pub const COMMAND_LIFETIME_SECONDS: i64 = 7 * 24 * 3600;
/// How far in the future a command's issue time may lie by the device's clock, in seconds.
pub const COMMAND_SKEW_SECONDS: i64 = 300;
/// A partner profile's bytes at most.
pub const PARTNER_BYTES: usize = 16 * 1024;
/// Endpoints of one partner at most: each costs time in a network test.
pub const ENDPOINTS: usize = 32;
/// Partner profiles that a device follows at most.
pub const PARTNERS: usize = 16;
/// Bytes of the list of remedies at most.
pub const REMEDIES_BYTES: usize = 256 * 1024;
/// Remedies in the list at most.
pub const REMEDIES: usize = 1_000;
/// Bytes of the list of entitlement keys at most.
pub const ENTITLEMENT_KEYS_BYTES: usize = 32 * 1024;
/// Keys in that list at most.
pub const ENTITLEMENT_KEYS: usize = 64;
/// An entitlement envelope's bytes at most.
pub const ENTITLEMENT_BYTES: usize = 16 * 1024;
