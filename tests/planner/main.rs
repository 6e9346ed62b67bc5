//! The planner and the gate over every combination of facts: total, deterministic, and never dangerous. The rendered
//! table per role is committed, for a person to review.

mod gates;
mod laptops;
mod pair;
mod product;
mod properties;
mod rows;
mod single;
mod table;
mod world;
