//! Values as JSON, and back, with errors that say what did not fit.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Outcome};

pub(crate) fn write<T: Serialize + ?Sized>(what: &str, value: &T) -> Outcome<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| Failure::terminal("not_json", format!("{what} cannot be written as JSON: {error}")))
}

pub(crate) fn read<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Outcome<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let shown: String = String::from_utf8_lossy(bytes).chars().take(120).collect();
        Failure::terminal("wrong_type", format!("{what} is not a {}: {error}; it is {shown}", std::any::type_name::<T>()))
    })
}
