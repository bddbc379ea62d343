//! What a recovery needs and must not have to fetch on the night: images, providers, certificates, quota; and the record of
//! what was prepared, on which machine, when.

pub mod certificate;
pub mod copy;
pub mod image;
pub mod quota;
pub mod record;
pub mod registry;
