//! The planner and the gate over every combination of facts: total, deterministic, and never dangerous. The rendered
//! table per role is committed, for a person to review.

mod checker;
mod explorer;
mod gates;
mod handing;
mod happenings;
mod laptops;
mod pair;
mod places;
mod product;
mod properties;
mod random;
mod rows;
mod settings;
mod single;
mod table;
mod world;
