//! What the fuzz targets share: how an input becomes Nodes and a ledger, and what every text must be that we write.
//!
//! Inputs are lines of text wherever what is parsed is text, so that the kept corpus can be read, and real values can be
//! put into it as they are.

pub mod agent;
pub mod cluster;
pub mod controller;
pub mod text;
