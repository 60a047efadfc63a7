link "lan" { mut = 1500 }
switch "s1" {}
