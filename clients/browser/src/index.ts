export const CLIENT = "sluice";
