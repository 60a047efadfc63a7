link "lan" {
router "r1" {}
