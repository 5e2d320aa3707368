//! Takes the items that its arguments name from the stock of the program that hosts it.

wit_bindgen::generate!({ path: "../wit", world: "shopper" });

use example::shop::stock;

fn main() {
    for item in std::env::args().skip(1) {
        match stock::take(&item) {
            Ok(left) => println!("took {item}, {left} left"),
            Err(why) => {
                eprintln!("no {item}: {why}");
                std::process::exit(1);
            }
        }
    }
}
