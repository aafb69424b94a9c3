//! What is behind Selvedge's ports outside of the engine: one folder and one cargo feature each.

#[cfg(feature = "cedar")]
pub mod cedar;
#[cfg(feature = "jwt")]
pub mod jwt;
