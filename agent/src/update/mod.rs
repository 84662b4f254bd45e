//! The courier: talks to `vigil-updaterd` over its socket and fetches what it names. It decides nothing.

mod client;
mod courier;
mod fetch;
mod pace;
mod rate;

pub use client::{Client, ClientError};
pub use courier::{Ask, CourierOptions, News, run};
pub use fetch::{FetchError, Fetcher};
